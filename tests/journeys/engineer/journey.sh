# An engineer has a classifier of 300 photographs. How robust is it, can it be made more robust, and who gets what?
# photographs/train and photographs/test hold a folder for each class; shop.py is the company's own code.

python shop.py # weights.pt, which is in use

# docs/models.md, docs/datasets.md, docs/evaluation.md: judge it as it is.
counterpart evaluate shop:classifier --data.name folder --data.root photographs --data.size 32 --eps 4/255 --attacks quick --name before

# docs/training.md, docs/evaluation.md: harden it, from these weights, and judge it on the same images.
counterpart train folder/finetune --data.root photographs --data.size 32 --model.name timm/test_resnet --model.init weights.pt --train.epochs 10 --name hardened
counterpart evaluate runs/hardened --eps 4/255 --attacks quick

# docs/commands.md: both on one page.
counterpart report runs/before runs/hardened

# docs/explaining.md, docs/commands.md
counterpart explain runs/hardened photographs/test/* --layer layer2 --eps 4/255 --steps 10 --out explained
counterpart predict runs/hardened photographs/test --csv predictions.csv

# docs/sharing.md: a file for the application, and a folder for the customer, who verifies it.
counterpart export runs/hardened --to hardened.onnx
counterpart export runs/hardened --to hardened.pt
counterpart share runs/hardened --to hardened-shared --licence mit
counterpart verify hardened-shared
