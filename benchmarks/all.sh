#!/usr/bin/env bash
# Every measurement, one after the other; those whose data is not given are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python=${BIN:-.venv/bin}/python
reference=${REFERENCE:+--reference $REFERENCE}

left_out() { echo "left out: $1 ($2)" >&2; }

# Methods of one pass, and those that average over many, where a step takes as long as thirty.
once=""
for method in gradient grad_times_input guided_backprop lrp pattern_attribution beta_smoothing \
  deconvnet deeplift excitation_backprop grad_cam pattern_net; do once+=" --method $method"; done
means="--method integrated_grad --method smoothgrad --method expected_gradients"
means+=" --method uniform_gradient"

$python benchmarks/startup.py
$python benchmarks/step.py $reference --memory $once
$python benchmarks/step.py $reference --memory $means --rounds 3 --steps 1
many="--alone --memory --rounds 3 --steps 1"
several="--batch 2 --batch 4 --batch 8 --batch 16"
for method in gradient lrp integrated_grad smoothgrad; do
  $python benchmarks/step.py --model squeezenet1_1 --method $method $several $many
  $python benchmarks/step.py --model tiny-vgg --method $method $several --batch 32 --batch 64 $many
done

if $python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  for precision in "" --tf32; do
    card="--device cuda $precision"
    $python benchmarks/step.py $card $reference --memory $once --rounds 7 --steps 5
    $python benchmarks/step.py $card $reference --memory $means --rounds 3 --steps 2
    $python benchmarks/step.py $card --method paper $several --batch 32 --batch 64 $many --steps 5
  done
else
  left_out "step.py on a GPU" "there is none"
fi

$python benchmarks/maps.py
$python benchmarks/capture.py runners
$python benchmarks/capture.py runners --compile --model tiny-vgg --batch 1 --method gradient
$python benchmarks/capture.py layouts
$python benchmarks/audit_memory.py
$python benchmarks/faults.py
$python benchmarks/soundness.py
$python benchmarks/sandwich.py mlp tiny-vgg
$python scripts/architecture_table.py

if [ -n "${REFERENCE:-}" ]; then
  $python benchmarks/against_reference.py $reference
else
  left_out against_reference.py "set REFERENCE"
fi

if [ -n "${LIRPA:-}" ]; then
  $python benchmarks/lirpa.py --peer "$LIRPA"
else
  left_out lirpa.py "set LIRPA, a Python that has auto_LiRPA"
fi

if [ -n "${WEIGHTS:-}" ] && [ -n "${PHOTOS:-}" ]; then
  for run in "fast --iterations 100" fast thorough paper; do
    for keep in "" --summarise; do
      $python benchmarks/photos.py --weights "$WEIGHTS" --photos "$PHOTOS" --method gradient \
        --method lrp --preset $run $keep
    done
  done
  $python benchmarks/capture.py precision --weights "$WEIGHTS" --photos "$PHOTOS" --pairs 4
else
  left_out photos.py "set WEIGHTS and PHOTOS"
fi

three="--method gradient --method lrp --method guided_backprop"
fewer="--iterations 50 --iterations 100 --iterations 200 --iterations 400"
papers="--preset paper --iterations 200 --iterations 1500"
if [ -n "${IMAGES:-}" ]; then
  $python benchmarks/quality.py --data "$IMAGES" $three --preset fast $fewer
  $python benchmarks/quality.py --data "$IMAGES" $three --preset thorough
  $python benchmarks/quality.py --data "$IMAGES" $three $papers
  if [ -n "${REFERENCE:-}" ]; then
    $python benchmarks/quality.py --data "$IMAGES" --preset reference $reference
  fi
  $python benchmarks/capture.py precision --data "$IMAGES" --method gradient --method lrp
  $python benchmarks/guarantees.py --model tiny-vgg-noise --data "$IMAGES" --sigma 0.25 --pool 1 \
    --samples 4000 --batch 64 --attacked 8
else
  left_out "quality.py, tiny-vgg" "set IMAGES"
fi
if [ -n "${CIFAR:-}" ] && [ -n "${CIFAR_WEIGHTS:-}" ]; then
  cifar="--model resnet20-cifar10 --weights $CIFAR_WEIGHTS --data $CIFAR"
  $python benchmarks/quality.py $cifar $three --preset fast $fewer
  $python benchmarks/quality.py $cifar $three --preset thorough
  $python benchmarks/quality.py $cifar $three $papers
else
  left_out "quality.py, ResNet-20" "set CIFAR and CIFAR_WEIGHTS"
fi
$python benchmarks/quality.py --draw
$python scripts/render_readme.py
