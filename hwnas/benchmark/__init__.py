"""Ground truth: searches in a space whose every architecture was trained by others, judged by what these reached."""
