//! A buffer with a limit, for the output of a child.
//!
//! Pure.

/// Bytes up to a limit. A longer output is cut to exactly that many bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    max: Option<usize>,
}

impl Buffer {
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self { bytes: Vec::new(), max }
    }

    /// Adds the bytes that fit; returns false if some did not.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> bool {
        let room = self.max.map_or(usize::MAX, |max| max - self.bytes.len());
        let fits = chunk.len() <= room;
        self.bytes.extend_from_slice(if fits { chunk } else { &chunk[..room] });
        fits
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_allowed_bytes_are_kept() {
        for (max, chunks, fits, kept) in [
            (Some(5), &["abc", "de"][..], true, "abcde"),
            (Some(5), &["abc", "def"], false, "abcde"),
            (Some(5), &["abcdef"], false, "abcde"),
            (Some(0), &["a"], false, ""),
            (Some(0), &[""], true, ""),
            (None, &["abc", "def"], true, "abcdef"),
        ] {
            let mut buffer = Buffer::new(max);
            let all_fit =
                chunks.iter().map(|chunk| buffer.push(chunk.as_bytes())).filter(|fit| !fit).count()
                    == 0;
            assert_eq!((all_fit, buffer.take()), (fits, kept.as_bytes().to_vec()), "{chunks:?}");
        }
    }
}
