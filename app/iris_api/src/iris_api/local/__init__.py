"""What a person runs on a laptop: a bundle served by one process, and the answers to a file."""
