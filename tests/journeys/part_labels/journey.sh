# The owner of part labels: two classes of photographs whose parts somebody outlined with LabelMe. "labelled" holds a folder for each class.

# docs/parts-data.md: bring them in, and look at them.
counterpart data describe labelme
counterpart data prepare labelme --source labelled --target parts
counterpart data check parts

# docs/parts.md: a part model of them, from scratch, with a small encoder.
counterpart train ade-parts/downsampled --data.root parts --data.size 48 --train.batch-size 8 --optimizer.lr 0.05 --train.background-weight 0.2 --train.clean-epochs 8 --train.epochs 3 --attack.steps 3 --name mine

# docs/evaluation.md, docs/commands.md: how robust it is, and how well it finds parts.
counterpart evaluate runs/mine --attacks pgd --parts
counterpart report runs/mine
