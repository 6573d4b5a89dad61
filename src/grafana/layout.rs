//! Sizes → places on Grafana's grid of 24 columns.

use serde_json::{Value, json};

/// Columns of the grid.
const COLUMNS: u32 = 24;

/// Puts panels side by side, from left to right, and begins a new line when one is full.
#[derive(Debug, Default)]
pub(super) struct Flow {
    x: u32,
    y: u32,
    /// Height of the line so far.
    height: u32,
}

impl Flow {
    /// The place of the next panel, as `gridPos`.
    pub(super) fn place(&mut self, [width, height]: [u32; 2]) -> Value {
        assert!((1..=COLUMNS).contains(&width) && height > 0, "a panel of {width} × {height}");
        if self.x + width > COLUMNS {
            self.end_line();
        }
        let place = json!({"x": self.x, "y": self.y, "w": width, "h": height});
        self.x += width;
        self.height = self.height.max(height);
        place
    }

    /// The place of a row's header, which has a line of its own.
    pub(super) fn place_header(&mut self) -> Value {
        self.end_line();
        let place = self.place([COLUMNS, 1]);
        self.end_line();
        place
    }

    fn end_line(&mut self) {
        self.x = 0;
        self.y += self.height;
        self.height = 0;
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
        assert_eq!(flow.place([20, 3]), at(0, 6, 20, 3));
        assert_eq!(flow.place_header(), at(0, 9, 24, 1));
        assert_eq!(flow.place([8, 2]), at(0, 10, 8, 2));
    }
}
