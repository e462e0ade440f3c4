"""Many runs by one command: on this machine, by Slurm, on Kubernetes."""
