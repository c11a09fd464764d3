"""What a step costs: seconds and memory (speed), operations (flops)."""
