"""What is asked of every topology in the same way: who reaches which port, and the exact replay of
a real trace."""
