"""Lightning callbacks: progress, pictures, export, and safe ends of runs."""
