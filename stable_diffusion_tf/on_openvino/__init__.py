"""What OpenVINO needs that other backends do not."""
