"""What has a clock."""
