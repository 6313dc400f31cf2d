"""Where tensors lie and what the accelerator does in each cycle, for a plan."""
