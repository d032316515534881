"""What every benchmark needs: a result's envelope, stored results, summaries, progress and a server process."""
