//! The same target without an engine.
//!
//! `decoder_loop SECONDS` mutates values that Node has written, and frames. `SEED` repeats a run.
//! `decoder_loop seeds FOLDER` writes the values and frames as a corpus for an engine, and
//! `decoder_loop targets` prints the names of the targets.

mod attack;
mod bounded;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const VECTORS: &str = include_str!("../../crates/ipc/tests/data/v8-vectors-node20.jsonl");

/// The generator xorshift64*, seeded by `SEED` or at random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = VECTORS
        .lines()
        .filter_map(|line| line.rsplit('"').nth(1))
        .map(|hex| {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(0);
            (0..hex.len() / 2).map(|at| byte(2 * at)).collect()
        })
        .collect();
    seeds.push(vec![31, 1, 2, 0, 1, 3, 0, 0, 0, 7, 7, 7, 64, 1, 2, 0, 1, 0, 0, 0, 0]);
    seeds.push([&[1, 0, 0, 0, 1][..], &[0; 40]].concat());
    seeds.push(br#"0{"Fields":{"blob":[1],"map":{"a":1},"value":null}}"#.to_vec());
    seeds.push(
        b"0{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"a\":[1]}}\n{}\n".to_vec(),
    );
    seeds.push([&[3, 4, 0, 0, 0][..], &1_u64.to_le_bytes(), &[0; 8]].concat());
    seeds.push([&[2, 0, 0, 0][..], &2_u64.to_le_bytes(), &[0; 60]].concat());
    seeds
}

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = vec![random.next() as u8];
    data.extend_from_slice(&seeds[random.below(seeds.len())]);
    for _ in 0..random.below(8) {
        let at = random.below(data.len());
        match random.below(6) {
            0 => data[at] = random.next() as u8,
            1 => data[at] ^= 1 << random.below(8),
            2 => drop(data.drain(at..(at + random.below(9)).min(data.len()))),
            3 => data.insert(at, [0, 1, 0x5e, 0x6f, 0x7f, 0x80, 0xff, 0x41][random.below(8)]),
            4 => {
                let other = &seeds[random.below(seeds.len())];
                data.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                let copy = data[at..].to_vec();
                data.extend_from_slice(&copy);
            }
        }
        if data.is_empty() {
            data.push(0);
        }
    }
    data
}

/// Writes the seeds as files.
fn write_seeds(folder: &str) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    for (number, seed) in seeds().iter().enumerate() {
        std::fs::write(format!("{folder}/{number}"), seed).expect("a file can be written");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["seeds", folder] => return write_seeds(folder),
        ["targets"] => return println!("{}", attack::TARGETS.join("\n")),
        _ => {}
    }
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(seconds)) | 1;
    println!("SEED={seed}, {seconds} s");
    let mut random = Random(seed);
    let seeds = seeds();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = [0_u64; attack::TARGETS.len()];
    let mut most = [0_usize; attack::TARGETS.len()];
    while Instant::now() < end {
        for _ in 0..100 {
            let data = mutate(&mut random, &seeds);
            let (target, bytes) = attack::attack(&data);
            runs[target] += 1;
            most[target] = most[target].max(bytes);
        }
    }
    for (target, name) in attack::TARGETS.iter().enumerate() {
        println!("{name}: {} runs, at most {} KiB in one", runs[target], most[target] / 1024);
    }
    println!("{} runs, nothing found", runs.iter().sum::<u64>());
}
