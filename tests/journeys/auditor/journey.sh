# An auditor was given a network of grey digits in four forms, and two sentences: half of all digits survive any attack within 0.1, and 99 % within 0.2.
# "strangers" holds the files, "images" a folder of digits for each class.

# docs/models.md, docs/evaluation.md: each form against a claim. A program runs only with --trust.
if counterpart evaluate strangers/program.pt --data.name folder --data.root images --data.channels 1; then exit 1; fi
counterpart evaluate strangers/program.pt --trust --data.name folder --data.root images --data.channels 1 --eps 0.2 --attacks quick --claim "99 % at 0.2" --name program
counterpart evaluate mnist-cnn@strangers/weights.pt --data.name folder --data.root images --data.channels 1 --eps 0.1 --attacks quick --claim "50 % at 0.1" --name state-dict
counterpart evaluate mnist-cnn@strangers/model.safetensors --data.name folder --data.root images --data.channels 1 --eps 0.2 --attacks quick --claim "99 % at 0.2" --name safetensors
counterpart evaluate strangers/model.onnx --data.name folder --data.root images --data.channels 1 --eps 0.2 --attacks square --claim "99 % at 0.2" --name onnx
counterpart report runs/program runs/state-dict runs/safetensors runs/onnx

# docs/sharing.md: who doubts the result verifies it elsewhere, from a bundle, or from a copy of runs, models and images.
counterpart verify runs/state-dict --bundle elsewhere/bundle
cp -r runs strangers images elsewhere
cd elsewhere
counterpart verify bundle
counterpart verify runs/safetensors
counterpart verify runs/onnx
counterpart verify runs/program --trust
