//! One row for each thing measured, for people or as JSON.

pub struct Report {
    pub json: bool,
}

impl Report {
    /// The median, least and most of them.
    pub fn milliseconds(&mut self, name: &str, values: &mut [f64]) {
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        let median = values[values.len() / 2];
        match self.json {
            true => println!(
                "{}",
                serde_json::json!({ "name": name, "ms": median, "ms_min": least, "ms_max": most })
            ),
            false => println!("{name:<40} {median:>8.0} ms   ({least:.0} to {most:.0})"),
        }
    }

    pub fn number(&mut self, name: &str, unit: &str, value: f64) {
        match self.json {
            true => println!(
                "{}",
                serde_json::json!({ "name": name, "unit": unit, "value": value })
            ),
            false => println!("{name:<40} {value:>8.2} {unit}"),
        }
    }
}
