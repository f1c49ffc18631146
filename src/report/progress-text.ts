/** How far a run has come; totals are known from the headers. */
export interface Progress {
  readonly groups: number;
  readonly totalGroups: number;
  readonly rows: number;
}

/** How far a run has come and how long the rest will take, given the seconds so far. */
export function progressText(progress: Progress, seconds: number): string {
  const { groups, totalGroups, rows } = progress;
  const share = totalGroups === 0 ? 1 : groups / totalGroups;
  const rate = seconds > 0 ? Math.round(rows / seconds) : 0;
  const left = share > 0 ? `, ${duration((seconds * (1 - share)) / share)} left` : '';
  return (
    `${Math.floor(share * 100)}% of ${grouped(totalGroups)} state groups, ` +
    `${grouped(rows)} rows, ${grouped(rate)} rows/s${left}`
  );
}

/** Long numbers that change ten times a second are read in groups of three digits. */
function grouped(count: number): string {
  return count.toLocaleString('en');
}

function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  const minutes = Math.ceil(whole / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
