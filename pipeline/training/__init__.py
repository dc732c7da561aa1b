"""Training one model without one fold: loop, step, saved states, distributed training, closed-form heads."""
