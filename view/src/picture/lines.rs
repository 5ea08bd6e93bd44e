//! Lines within the bounds of a panel.

/// What a panel shows: `x` and `y` from the least to the largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Bounds {
    fn clamp_x(&self, x: f64) -> f64 {
        x.clamp(self.x.0, self.x.1)
    }

    /// A vertical stroke, cut to the bounds; `None`: outside.
    pub(super) fn stroke(&self, x: f64, low: f64, high: f64) -> Option<(f64, f64)> {
        let inside = x >= self.x.0 && x <= self.x.1 && high >= self.y.0 && low <= self.y.1;
        inside.then(|| (low.max(self.y.0), high.min(self.y.1)))
    }
}

/// Stairs: each value holds until the next point. Lines end where there is no value, and where they leave the bounds.
pub(super) fn stairs(points: impl Iterator<Item = (f64, Option<f64>)>, bounds: &Bounds) -> Vec<Vec<(f64, f64)>> {
    let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut run: Vec<(f64, f64)> = Vec::new();
    let mut last: Option<(f64, f64)> = None;
    for (x, value) in points.chain(std::iter::once((bounds.x.1, None))) {
        if let Some((from, y)) = last
            && y >= bounds.y.0
            && y <= bounds.y.1
            && x >= bounds.x.0
            && from <= bounds.x.1
        {
            // to the next point, level
            if run.is_empty() {
                run.push((bounds.clamp_x(from), y));
            }
            run.push((bounds.clamp_x(x), y));
        }
        if let (Some((_, y)), Some(to)) = (last, value)
            && y != to
            && let Some((low, high)) = bounds.stroke(x, y.min(to), y.max(to))
        {
            // and up or down to it
            let (begin, end) = if y < to { (low, high) } else { (high, low) };
            if run.is_empty() {
                run.push((x, begin));
            }
            run.push((x, end));
        }
        let goes_on = value.is_some_and(|y| y >= bounds.y.0 && y <= bounds.y.1);
        if !goes_on && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
        }
        last = value.map(|y| (x, y));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { x: (0.0, 10.0), y: (0.0, 100.0) };

    #[test]
    fn a_value_holds_until_the_next_and_to_the_end() {
        let runs = stairs([(1.0, Some(5.0)), (4.0, Some(7.0))].into_iter(), &BOUNDS);
        assert_eq!(runs, [vec![(1.0, 5.0), (4.0, 5.0), (4.0, 7.0), (10.0, 7.0)]]);
    }

    #[test]
    fn where_no_value_is_there_is_no_line() {
        let runs = stairs([(1.0, Some(5.0)), (2.0, None), (4.0, Some(7.0))].into_iter(), &BOUNDS);
        assert_eq!(runs, [vec![(1.0, 5.0), (2.0, 5.0)], vec![(4.0, 7.0), (10.0, 7.0)]]);
    }

    #[test]
    fn a_line_leaves_through_the_edge_and_comes_back() {
        let runs = stairs([(1.0, Some(50.0)), (2.0, Some(500.0)), (4.0, Some(60.0))].into_iter(), &BOUNDS);
        assert_eq!(
            runs,
            [vec![(1.0, 50.0), (2.0, 50.0), (2.0, 100.0)], vec![(4.0, 100.0), (4.0, 60.0), (10.0, 60.0)]],
            "no line along the upper edge"
        );
    }
}
