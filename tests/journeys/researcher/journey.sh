# A researcher makes a table for a paper, with her own attack and her own mask rule in her own training loop.

# docs/extending.md, docs/python.md: my loop, my attack, my rule.
python experiment.py

# docs/commands.md: the table, and the page behind it.
counterpart report runs/plain runs/uniform runs/strokes --table latex --output table.tex
counterpart report runs/plain runs/uniform runs/strokes --output page.html
