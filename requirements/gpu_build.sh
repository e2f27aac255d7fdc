#!/bin/sh
# Choose the build of Paddle for the NVIDIA GPUs of this machine. Prints one line, for the Makefile:
#   pypi      Paddle 2.6.2 from PyPI. It needs CUDA 11.8 and cuDNN 8.6 or a later cuDNN 8 on the machine.
#   cu118, cu126 or cu129      Paddle 3.3.1 from this folder of Paddle's own index. It contains CUDA.
#   a sentence      No build runs on these GPUs, for this reason.
# If nvidia-smi does not work here, it prints nothing.
#
# The builds hold machine code for these compute capabilities, and CUDA needs these drivers:
#   pypi 6.1 to 8.9, cu118 6.0 to 8.9: driver 450.80 or later
#   cu126 7.0 to 9.0, cu129 7.5 and later: driver 550.54 or later
# Sources: the headers of the kernels in PyPI's 2.6.2; Paddle's messages on mismatched GPUs in its issues 73687 and 74088
# and in issue 4682 of PaddleX; PaddleX's installation page for the drivers. No GPU was there to try them.

# Drivers before 510 do not know the field compute_cap. They print an error and exit with another code than 0.
gpus=$(nvidia-smi --query-gpu=driver_version,compute_cap,name --format=csv,noheader 2>/dev/null) ||
	gpus=$(nvidia-smi --query-gpu=driver_version,driver_version,name --format=csv,noheader 2>/dev/null) || exit 0
[ -n "$gpus" ] || exit 0

# CUDA and cuDNN are searched in LD_LIBRARY_PATH and in CUDA_FOLDERS, by default their usual folders.
libraries=$(ls $(echo "$LD_LIBRARY_PATH" | tr : ' ') \
	${CUDA_FOLDERS-/usr/local/cuda/lib64 /usr/local/cuda-11.8/lib64 /usr/lib/x86_64-linux-gnu} 2>/dev/null)
cuda=no
case "$libraries" in *libcudart.so.11.8.*)
	case "$libraries" in *libcudnn.so.8.[6-9]*) cuda=yes ;; esac ;;
esac

echo "$gpus" | awk -F ', *' -v cuda=$cuda '
function serves(lowest, highest, oldest_driver) {
	return low >= lowest && high <= highest && driver >= oldest_driver
}
{
	split($1, part, ".")
	driver = part[1] * 1000 + part[2]
	known = $1 != $2 && $2 ~ /^[0-9]+[.][0-9]/
	if (NR == 1 || $2 + 0 < low) { low = $2 + 0; low_name = $3 " (compute capability " $2 ")" }
	if (NR == 1 || $2 + 0 > high) { high = $2 + 0; high_name = $3 " (compute capability " $2 ")" }
	named = $1
}
END {
	update = "update the driver, or install the CPU build with GPU=0"
	if (driver < 450080) {
		print "the NVIDIA driver " named " is too old: Paddle needs 450.80 or later; " update
	} else if (!known) {
		print "cu118"
	} else if (low < 6) {
		print "the GPU " low_name " is too old: Paddle needs 6.0 or later; install the CPU build with GPU=0"
	} else if (cuda == "yes" && serves(6.1, 8.9, 450080)) {
		print "pypi"
	} else if (serves(7, 9, 550054)) {
		print "cu126"
	} else if (serves(6, 8.9, 450080)) {
		print "cu118"
	} else if (serves(7.5, 99, 550054)) {
		print "cu129"
	} else if (driver < 550054) {
		print "the NVIDIA driver " named " is too old for " high_name ": Paddle needs 550.54 or later; " update
	} else {
		print "no build of Paddle runs on both " low_name " and " high_name \
			": choose one for the GPU that you need with PADDLE_INDEX (docs/installation.md), or GPU=0"
	}
}'
