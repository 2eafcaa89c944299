#!/bin/bash
# SFT on several machines under SLURM, the arguments being those of `medvlt sft`. Submit it in the folder that holds
# runs/, which all machines see under the same path, with medvlt's environment active:
#
#     sbatch slurm.sh --run full-32b --arm sft_text
#
# Every machine runs the command that `medvlt sft` prints. Two variables tell it which machine it is, and where the
# first one is. A job that ended early, or was put back in the queue, goes on from its last checkpoint.
# Run by bash on one machine, with stand-ins for scontrol and srun and two CPU processes. Not run under SLURM.
#SBATCH --job-name=medvlt-sft
#SBATCH --nodes=4               # the profile's launch.machines
#SBATCH --gpus-per-node=8       # its launch.devices / launch.machines
#SBATCH --ntasks-per-node=1     # accelerate starts a process for each GPU itself
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

if printed=$(medvlt sft "$@" 2>&1); then
    echo "$printed"             # there was nothing to launch: one device has trained
    exit
fi
if ! command=$(grep -o 'accelerate launch .*' <<< "$printed"); then
    echo "$printed" >&2
    exit 1
fi
machines=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export FIRST_MACHINE=${machines%%$'\n'*}
srun --kill-on-bad-exit=1 bash -c "export MACHINE_RANK=\$SLURM_NODEID; exec $command"
