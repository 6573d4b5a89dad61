//! Decompression with a limit on what comes out: a bomb costs no more than an honest body.

use std::io::{ErrorKind, Read, Result as IoResult};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::report::Rejection;

/// Largest window that a zstd frame may ask for, as a power of two: 8 MiB, which the format's
/// specification asks decoders to support.
const ZSTD_WINDOW_LOG: u32 = 23;
const BROTLI_BUFFER_BYTES: usize = 4096;
/// Most reports fit, decompressed.
const FIRST_BYTES: usize = 4096;

/// A content encoding that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// From the header; one encoding at most.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let unknown = || {
            let detail = "expected none, or one of gzip, deflate, br, zstd";
            Rejection::unsupported("Content-Encoding", detail)
        };
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(Self::Identity);
        };
        if values.next().is_some() {
            return Err(unknown());
        }
        match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "br" => Ok(Self::Brotli),
            "zstd" => Ok(Self::Zstd),
            _ => Err(unknown()),
        }
    }
}

/// Decompresses a body to at most `limit` bytes.
pub(super) fn decode(encoding: Encoding, sent: &[u8], limit: usize) -> Result<Bytes, Rejection> {
    let decoded = match encoding {
        Encoding::Identity => read_up_to(sent, limit),
        Encoding::Gzip => read_up_to(MultiGzDecoder::new(sent), limit),
        // The standard means zlib; some clients send the bare stream.
        Encoding::Deflate if is_zlib(sent) => read_up_to(ZlibDecoder::new(sent), limit),
        Encoding::Deflate => read_up_to(DeflateDecoder::new(sent), limit),
        Encoding::Brotli if has_large_window(sent) => Err(ErrorKind::InvalidData.into()),
        Encoding::Brotli => read_up_to(brotli::Decompressor::new(sent, BROTLI_BUFFER_BYTES), limit),
        Encoding::Zstd => zstd_decoder(sent).and_then(|decoder| read_up_to(decoder, limit)),
    };
    match decoded {
        Ok(Some(bytes)) => Ok(bytes.into()),
        Ok(None) => {
            let detail = format!("the body is larger than {limit} bytes once decompressed");
            Err(Rejection::too_large(detail))
        }
        Err(_) => Err(Rejection::invalid("$", "the body cannot be decompressed")),
    }
}

/// `None` when there is more. The buffer doubles up to the limit and no further: a bomb costs
/// what an honest body does. (`read_to_end` would double a full buffer before it asks for more.)
fn read_up_to(mut reader: impl Read, limit: usize) -> IoResult<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    let mut filled = 0;
    loop {
        if filled == limit {
            let is_all = reader.read(&mut [0])? == 0;
            return Ok(is_all.then_some(decoded));
        }
        if filled == decoded.len() {
            let size = (2 * filled).max(FIRST_BYTES).min(limit);
            decoded.reserve_exact(size - filled);
            decoded.resize(size, 0);
        }
        match reader.read(&mut decoded[filled..])? {
            0 => {
                decoded.truncate(filled);
                return Ok(Some(decoded));
            }
            read => filled += read,
        }
    }
}

fn zstd_decoder(sent: &[u8]) -> IoResult<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(sent)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// A brotli stream that asks for a window of up to 1 GiB. RFC 7932, section 9.1, allows 16 MiB
/// and declares this pattern of bits invalid; the decoder would allocate the window.
fn has_large_window(sent: &[u8]) -> bool {
    sent.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// RFC 1950: the low four bits of the first byte are 8, and both bytes together a multiple of 31.
fn is_zlib(sent: &[u8]) -> bool {
    matches!(sent, [first, second, ..]
        if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn what_comes_out_is_limited() {
        let bomb = Bytes::from(gzip(&vec![b' '; 1_000_000]));
        assert!(bomb.len() < 2_000);
        let refused = decode(Encoding::Gzip, &bomb, 999_999).expect_err("too large");
        assert_eq!(
            refused,
            Rejection::too_large("the body is larger than 999999 bytes once decompressed")
        );
        assert_eq!(decode(Encoding::Gzip, &bomb, 1_000_000).expect("fits").len(), 1_000_000);
    }

    #[test]
    fn a_buffer_is_no_larger_than_its_limit() {
        for length in [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, 3 << 19] {
            let sent = vec![b' '; length];
            let decoded = read_up_to(&sent[..], 1 << 20).expect("in memory");
            assert_eq!(decoded.is_some(), length <= 1 << 20, "{length}");
            if let Some(decoded) = decoded {
                assert_eq!(decoded, sent);
                assert!(decoded.capacity() <= 1 << 20, "{length}: {}", decoded.capacity());
            }
        }
        let small = read_up_to(&[b' '; 9][..], 10).expect("in memory").expect("fits");
        assert_eq!((small.len(), small.capacity()), (9, 10));
    }

    #[test]
    fn a_truncated_body_is_refused() {
        let mut cut = gzip(b"{\"sessionId\":\"s\"}");
        cut.truncate(cut.len() - 4);
        // Also when all that is missing comes after the last byte that may come out.
        for limit in [100, 17] {
            let refused = decode(Encoding::Gzip, &cut, limit).expect_err("cut off");
            assert_eq!(refused, Rejection::invalid("$", "the body cannot be decompressed"));
        }
    }

    #[test]
    fn brotli_with_a_large_window_is_refused() {
        let text = b"{\"sessionId\":\"s\"}";
        let encode = |large_window| {
            let lgwin = if large_window { 30 } else { 24 };
            let parameters = brotli::enc::BrotliEncoderParams {
                large_window,
                lgwin,
                ..brotli::enc::BrotliEncoderParams::default()
            };
            let mut sent = Vec::new();
            brotli::BrotliCompress(&mut &text[..], &mut sent, &parameters).expect("in memory");
            sent
        };
        let large = decode(Encoding::Brotli, &encode(true), 100);
        assert_eq!(large, Err(Rejection::invalid("$", "the body cannot be decompressed")));
        assert_eq!(&decode(Encoding::Brotli, &encode(false), 100).expect("decoded")[..], text);
    }

    #[test]
    fn deflate_is_read_with_and_without_its_frame() {
        let text = b"{}{}{}{}{}{}{}{}";
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(text).expect("in memory");
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        bare.write_all(text).expect("in memory");
        for sent in [zlib.finish().expect("zlib"), bare.finish().expect("bare")] {
            assert_eq!(&decode(Encoding::Deflate, &sent, 100).expect("decoded")[..], text);
        }
    }
}
