"""Where data come from: HTTP(S), and Minari's remotes on the Hugging Face hub and on Google Cloud Storage."""
