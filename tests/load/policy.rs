//! From the text of a large policy to tables that are in force.

use std::time::Instant;

use netfilter_daemon::{
    compile::{self, Image},
    policy::{self, System, service_tag::Catalogue},
};

use crate::{bpffs::Kernel, large, report::Report};

const ROUNDS: usize = 5;

pub fn measure(report: &mut Report) {
    let prefixes = large::prefixes();
    let published = large::published(&prefixes);
    let texts = [
        ("rules", large::rules(&prefixes)),
        ("list", large::list(&prefixes)),
        ("tags", large::tagged("tags.json")),
    ];
    let mut last = None;
    for (shape, text) in &texts {
        let (mut read, mut compiled, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (image, [reading, compiling]) = image(text, &published);
            read.push(reading);
            compiled.push(compiling);
            both.push(reading + compiling);
            last = Some(image);
        }
        report.milliseconds(&format!("policy/{shape}/read"), &mut read);
        report.milliseconds(&format!("policy/{shape}/compile"), &mut compiled);
        report.milliseconds(&format!("policy/{shape}/both"), &mut both);
    }
    let image = last.unwrap();
    let mut kernel = Kernel::of(&image);
    let mut filled: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            kernel.datapath.replace(&image).unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    report.milliseconds("policy/tags/fill and flip", &mut filled);
}

/// And milliseconds that reading and compiling took.
fn image(text: &str, published: &str) -> (Image, [f64; 2]) {
    let began = Instant::now();
    let system = System::default();
    let policy = policy::parse(text, "policy.yaml", &system, &|source| match source {
        "tags.json" => Catalogue::parse(published, source),
        _ => Catalogue::built_in(),
    });
    let policy = policy.unwrap();
    let read = began.elapsed();
    let image = compile::compile(&policy).unwrap();
    let all = began.elapsed();
    (
        image,
        [read, all - read].map(|time| time.as_secs_f64() * 1e3),
    )
}
