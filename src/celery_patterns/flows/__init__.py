"""What is made of several tasks, or decides about them before they run: one package each."""
