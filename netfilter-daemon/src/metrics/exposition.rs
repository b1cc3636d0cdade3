//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.

/// Which format a scraper gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    Prometheus,
    OpenMetrics,
}

impl Exposition {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The one that an `Accept` header prefers. Prometheus' own format is the
    /// answer to everything that names neither.
    pub fn negotiate(accept: &str) -> Self {
        let mut open_metrics = 0;
        let mut prometheus = 0;
        for range in accept.split(',') {
            let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality = quality(parameters);
            match media_type.trim().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" if is_version_1(parameters) => {
                    open_metrics = open_metrics.max(quality);
                }
                "text/plain" | "text/*" | "*/*" => prometheus = prometheus.max(quality),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= prometheus {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

/// One metric: its name, its type, its sentence.
#[derive(Debug)]
pub(super) struct Metric {
    /// Without the `_total` of a counter, which OpenMetrics gives to the samples only.
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Metric {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            help,
        }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            help,
        }
    }
}

/// A page in the making: declare a metric, then give its samples.
#[derive(Debug)]
pub(super) struct Text {
    exposition: Exposition,
    text: String,
    sample_name: String,
}

impl Text {
    pub(super) fn new(exposition: Exposition) -> Self {
        Self {
            exposition,
            text: String::new(),
            sample_name: String::new(),
        }
    }

    pub(super) fn declare(&mut self, metric: &Metric) {
        let total = match metric.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
        };
        self.sample_name = format!("{}{total}", metric.name);
        let (family, kind) = match (self.exposition, metric.kind) {
            (Exposition::Prometheus, Kind::Counter) => (self.sample_name.as_str(), "counter"),
            (Exposition::OpenMetrics, Kind::Counter) => (metric.name, "counter"),
            (_, Kind::Gauge) => (metric.name, "gauge"),
        };
        let help = metric.help;
        self.text
            .push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
        if self.exposition == Exposition::OpenMetrics
            && let Some(unit) = ["seconds", "bytes"]
                .iter()
                .find(|unit| metric.name.ends_with(**unit))
        {
            self.text.push_str(&format!("# UNIT {family} {unit}\n"));
        }
    }

    /// A sample of the metric that was declared last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample_text(labels, &value.to_string());
    }

    /// The same in seconds.
    pub(super) fn sample_nanoseconds(&mut self, labels: &[(&str, &str)], value: u64) {
        const SECOND: u64 = 1_000_000_000;
        let seconds = format!("{}.{:09}", value / SECOND, value % SECOND);
        self.sample_text(labels, &seconds);
    }

    fn sample_text(&mut self, labels: &[(&str, &str)], value: &str) {
        self.text.push_str(&self.sample_name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            self.text.push(opening);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push_str(&format!(" {value}\n"));
    }

    pub(super) fn finish(mut self) -> String {
        if self.exposition == Exposition::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Thousandths, as RFC 9110 section 12.4.2 bounds them.
fn quality(parameters: &str) -> u32 {
    let Some(value) = parameter(parameters, "q") else {
        return 1000;
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let thousandths = format!("{fraction:0<3.3}");
    match (whole.parse::<u32>(), thousandths.parse::<u32>()) {
        (Ok(whole), Ok(fraction)) => whole
            .saturating_mul(1000)
            .saturating_add(fraction)
            .min(1000),
        _ => 0,
    }
}

fn is_version_1(parameters: &str) -> bool {
    parameter(parameters, "version").is_none_or(|version| version == "1.0.0")
}

fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Prometheus 2.5x sends.
    const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    #[test]
    fn prometheus_gets_openmetrics_because_it_prefers_it() {
        assert_eq!(Exposition::negotiate(PROMETHEUS), Exposition::OpenMetrics);
    }

    #[test]
    fn a_browser_and_curl_get_plain_text() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for accept in [browser, "*/*", "", "garbage;;=,"] {
            assert_eq!(
                Exposition::negotiate(accept),
                Exposition::Prometheus,
                "{accept}"
            );
        }
    }

    #[test]
    fn a_version_of_openmetrics_that_is_not_spoken_is_not_answered_with_it() {
        let accept = "application/openmetrics-text;version=0.0.1,text/plain;q=0.1";
        assert_eq!(Exposition::negotiate(accept), Exposition::Prometheus);
        let accept = "application/openmetrics-text,text/plain;q=0.1";
        assert_eq!(Exposition::negotiate(accept), Exposition::OpenMetrics);
    }

    #[test]
    fn a_format_that_is_refused_by_quality_0_is_not_sent() {
        let accept = "application/openmetrics-text;q=0,*/*;q=0.1";
        assert_eq!(Exposition::negotiate(accept), Exposition::Prometheus);
    }

    #[test]
    fn an_absurd_quality_does_not_overflow() {
        let accept = "application/openmetrics-text;q=0.99999999999999,text/plain;q=0.5";
        assert_eq!(Exposition::negotiate(accept), Exposition::OpenMetrics);
        let accept = "application/openmetrics-text;q=4294967295.9,text/plain";
        assert_eq!(Exposition::negotiate(accept), Exposition::OpenMetrics);
        let accept = "application/openmetrics-text;q=-1,text/plain;q=0.1";
        assert_eq!(Exposition::negotiate(accept), Exposition::Prometheus);
    }

    #[test]
    fn label_values_are_escaped() {
        let metric = Metric::gauge("netfilter_enforcing", "Sentence.");
        let mut text = Text::new(Exposition::Prometheus);
        text.declare(&metric);
        text.sample(&[("interface", "a\"b\\c\nd{é}")], 1);
        let last = text.finish();
        let last = last.lines().last().unwrap();
        assert_eq!(last, r#"netfilter_enforcing{interface="a\"b\\c\nd{é}"} 1"#);
    }
}
