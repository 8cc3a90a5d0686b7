//! Medians with min and max, and ratios taken within each round.

use serde_json::{Value, json};

use crate::Args;

pub struct Sample {
    pub events_per_s: f64,
    pub host_us: f64,
    pub redis_us: f64,
}

pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

pub fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    Spread { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
}

fn rows(args: &Args) -> Vec<&'static str> {
    crate::ROWS.into_iter().filter(|row| args.only.as_deref().is_none_or(|only| only == *row)).collect()
}

pub fn table(args: &Args, rounds: &[Vec<Sample>]) {
    println!("{} events in each drain, {} rounds; median [min - max]\n", args.events, rounds.len());
    println!(
        "{:<10} {:>28} {:>22} {:>20} {:>20}",
        "row", "events/s", "ratio to raw", "host µs/event", "redis µs/event"
    );
    for (index, row) in rows(args).iter().enumerate() {
        let of = |value: fn(&Sample) -> f64| spread(rounds.iter().map(|round| value(&round[index])));
        let (rate, host, redis) = (of(|s| s.events_per_s), of(|s| s.host_us), of(|s| s.redis_us));
        let ratio = spread(rounds.iter().map(|round| round[index].events_per_s / round[0].events_per_s));
        println!(
            "{row:<10} {:>28} {:>22} {:>20} {:>20}",
            format!("{:.0} [{:.0} - {:.0}]", rate.median, rate.min, rate.max),
            format!("{:.3} [{:.3} - {:.3}]", ratio.median, ratio.min, ratio.max),
            format!("{:.1} [{:.1} - {:.1}]", host.median, host.min, host.max),
            format!("{:.1} [{:.1} - {:.1}]", redis.median, redis.min, redis.max),
        );
    }
}

pub fn json(args: &Args, rounds: &[Vec<Sample>]) {
    let (mut ratios, mut bare, mut rates, mut cpu) = (json!({}), json!({}), json!({}), json!({}));
    for (index, row) in rows(args).iter().enumerate() {
        let of = |value: &dyn Fn(&[Sample]) -> f64| spread(rounds.iter().map(|round| value(round))).json();
        rates[*row] = of(&|round| round[index].events_per_s);
        cpu[*row] = json!({ "host": of(&|round| round[index].host_us), "redis": of(&|round| round[index].redis_us) });
        if index > 0 {
            ratios[*row] = of(&|round| round[index].events_per_s / round[0].events_per_s);
        }
        if index > 1 && rounds.iter().all(|round| round.len() > 1) {
            bare[*row] = of(&|round| round[index].events_per_s / round[1].events_per_s);
        }
    }
    let document: Value = json!({
        "events": args.events, "rounds": rounds.len(),
        "ratio_to_raw": ratios, "ratio_to_bare": bare, "events_per_s": rates, "cpu_us": cpu,
    });
    println!("{document}");
}
