"""What every folder may use: errors, rules of settings, files that survive, files from elsewhere."""
