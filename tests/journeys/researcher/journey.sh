# A researcher makes a table for a paper, with her own attack and her own mask rule in her own training loop.

# docs/extending.md, docs/python.md
python experiment.py

# docs/reading-a-report.md
counterpart report runs/plain runs/uniform runs/strokes --table latex --output table.tex
counterpart report runs/plain runs/uniform runs/strokes --output page.html
