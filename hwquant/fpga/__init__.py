"""What FPGAs hold, synthesis, and place and route."""
