//! Sizes → places on Grafana's grid of 24 columns.

use serde_json::{Value, json};

/// Columns of the grid.
const COLUMNS: usize = 24;

/// Puts panels as high as they fit, and of these places on the leftmost: side by side, then in
/// a new line, or beside a tall one.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// First free line of each column.
    free: [u32; COLUMNS],
}

impl Flow {
    /// The place of the next panel, as `gridPos`.
    pub(super) fn place(&mut self, [width, height]: [u32; 2]) -> Value {
        let columns = usize::try_from(width).unwrap_or(COLUMNS + 1);
        assert!((1..=COLUMNS).contains(&columns) && height > 0, "a panel of {width} × {height}");
        let line = |x: usize| self.free[x..x + columns].iter().copied().max().unwrap_or(0);
        let x = (0..=COLUMNS - columns).min_by_key(|x| line(*x)).unwrap_or(0);
        let y = line(x);
        self.free[x..x + columns].fill(y + height);
        json!({"x": x, "y": y, "w": width, "h": height})
    }

    /// The place of a row's header, which has a line of its own below all that is there.
    pub(super) fn place_header(&mut self) -> Value {
        self.free = [self.free.into_iter().max().unwrap_or(0); COLUMNS];
        self.place([24, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_flow_from_left_to_right() {
        let mut flow = Flow::default();
        let at = |x: u32, y: u32, w: u32, h: u32| json!({"x": x, "y": y, "w": w, "h": h});
        assert_eq!(flow.place([12, 4]), at(0, 0, 12, 4));
        assert_eq!(flow.place([12, 6]), at(12, 0, 12, 6));
        assert_eq!(flow.place([12, 2]), at(0, 4, 12, 2), "beside the tall one");
        assert_eq!(flow.place([20, 3]), at(0, 6, 20, 3));
        assert_eq!(flow.place_header(), at(0, 9, 24, 1));
        assert_eq!(flow.place([8, 2]), at(0, 10, 8, 2));
    }
}
