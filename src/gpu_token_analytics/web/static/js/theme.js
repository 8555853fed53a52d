// Classic and blocking on purpose: the chosen theme stands before the first paint, so a dark page never flashes white.
try {
  const theme = localStorage.getItem('theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is refused: the system's scheme applies.
}
