//! What a body may be: its type, its encoding, its size.

use std::io::Write as _;

use flate2::Compression;
use reqwest::{Method, RequestBuilder};

use super::{NOW_MS, is_error, report, results};
use crate::support::{Database, Server};

pub const ENCODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "br", "zstd"];

pub fn compress(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = Compression::best();
    match encoding {
        "gzip" | "x-gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "bare deflate" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "br" => {
            let mut compressed = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut compressed, 4096, 1, 22);
            encoder.write_all(bytes).expect("in memory");
            drop(encoder);
            compressed
        }
        "zstd" => zstd::encode_all(bytes, 1).expect("in memory"),
        other => panic!("{other}"),
    }
}

fn post(server: &Server, path: &str, encoding: &str, body: Vec<u8>) -> RequestBuilder {
    let request = server.request(Method::POST, path);
    request
        .header("Content-Type", "application/json")
        .header("Content-Encoding", encoding)
        .body(body)
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    let server = Server::at(NOW_MS).await;
    for encoding in ENCODINGS {
        let one = compress(encoding, report(encoding).as_bytes());
        for header in [encoding.to_owned(), encoding.to_uppercase()] {
            let answer = server.send(post(&server, "/v1/sessions", &header, one.clone())).await;
            assert_eq!(answer.status, 200, "{header}: {}", answer.text);
            assert_eq!(answer.json()["sessionId"], encoding);
        }
        let batch = format!("[{},{}]", report("a"), report(&format!("{encoding} 2")));
        let batch = compress(encoding, batch.as_bytes());
        let answer = server.send(post(&server, "/v1/sessions/batch", encoding, batch)).await;
        assert_eq!(answer.json()["accepted"], 2, "{encoding}: {}", answer.text);
    }
    let bare = compress("bare deflate", report("bare").as_bytes());
    assert_eq!(server.send(post(&server, "/v1/sessions", "deflate", bare)).await.status, 200);
    let plain = report("plain").into_bytes();
    assert_eq!(server.send(post(&server, "/v1/sessions", "identity", plain)).await.status, 200);
}

#[tokio::test]
async fn types_and_encodings_that_are_unknown_are_refused() {
    let server = Server::at(NOW_MS).await;
    let gzip = compress("gzip", report("s").as_bytes());
    let twice = compress("gzip", &gzip);
    for (encoding, body) in [
        ("compress", &gzip),
        ("gzip, gzip", &twice),
        ("gzip,br", &twice),
        ("gzip;q=1", &gzip),
        ("aws-chunked", &gzip),
        ("utf-8", &gzip),
    ] {
        for path in ["/v1/sessions", "/v1/sessions/batch"] {
            let answer = server.send(post(&server, path, encoding, body.clone())).await;
            is_error(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
        }
    }
    let request = post(&server, "/v1/sessions", "gzip", twice.clone());
    let answer = server.send(request.header("Content-Encoding", "gzip")).await;
    is_error(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
    // Twice compressed and once declared is no JSON.
    let answer = server.send(post(&server, "/v1/sessions", "gzip", twice)).await;
    is_error(&answer, 400, "INVALID_SCHEMA");

    for (content_type, status) in [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ("application/vnd.media3watch+json", 200),
        ("text/plain", 200),
        ("text/plain;charset=UTF-8", 200),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("application/xml", 415),
        ("", 415),
        ("json", 415),
    ] {
        for (path, body) in
            [("/v1/sessions", report("s")), ("/v1/sessions/batch", format!("[{}]", report("s")))]
        {
            let request = server.request(Method::POST, path).body(body);
            let answer = server.send(request.header("Content-Type", content_type)).await;
            if status == 200 {
                assert_eq!(answer.status, 200, "{content_type}: {}", answer.text);
            } else {
                is_error(&answer, status, "UNSUPPORTED_MEDIA_TYPE");
            }
        }
    }
    let series = "sessions_rejected_total{code=\"UNSUPPORTED_MEDIA_TYPE\"}";
    assert!((server.metric(series).await - 27.0).abs() < 0.5);
    // Kept for the operator, as they were sent.
    let kept = "SELECT count(*) FROM rejected_reports WHERE code = 'UNSUPPORTED_MEDIA_TYPE'";
    assert_eq!(server.database.number(kept).await, 27);
    let bodies = format!("{kept} AND field = 'Content-Encoding' AND octet_length(body) > 0");
    assert_eq!(server.database.number(&bodies).await, 13);
}

/// What cannot be decompressed is refused whole, even where the beginning makes sense, and
/// kept as it was sent.
#[tokio::test]
async fn truncated_and_broken_bodies_are_refused_and_kept() {
    let server = Server::at(NOW_MS).await;
    let report = report("s") + &" ".repeat(5_000);
    let lines = format!("{}\n", report.trim()).repeat(50);
    let mut sent = Vec::new();
    for encoding in ["gzip", "deflate", "bare deflate", "br", "zstd"] {
        let header = encoding.trim_start_matches("bare ");
        for (path, content_type, text) in [
            ("/v1/sessions", "application/json", &report),
            ("/v1/sessions/batch", "application/x-ndjson", &lines),
        ] {
            let whole = compress(encoding, text.as_bytes());
            let mut broken: Vec<Vec<u8>> =
                [1, 4, 9, whole.len() / 2].map(|cut| whole[..whole.len() - cut].to_vec()).into();
            broken.push(text.clone().into_bytes());
            broken.push(Vec::new());
            for body in broken {
                let request = server.request(Method::POST, path);
                let request = request.header("Content-Type", content_type);
                let request = request.header("Content-Encoding", header).body(body.clone());
                let answer = server.send(request).await;
                let length = body.len();
                assert_eq!(
                    answer.status,
                    400,
                    "{encoding} {length} of {}: {}",
                    whole.len(),
                    answer.text
                );
                let message = is_error(&answer, 400, "INVALID_SCHEMA");
                assert_eq!(message, "$: the body cannot be decompressed");
                sent.push(body);
            }
        }
    }
    let bodies = "SELECT body FROM rejected_reports WHERE code = 'INVALID_SCHEMA' ORDER BY id";
    let kept: Vec<Vec<u8>> = sqlx::query_scalar(bodies)
        .fetch_all(&mut server.database.connect().await)
        .await
        .expect("rows");
    assert!(kept == sent, "{} kept, {} sent", kept.len(), sent.len());
    let series = "sessions_rejected_total{code=\"INVALID_SCHEMA\"}";
    assert!((server.metric(series).await - sent.len() as f64).abs() < 0.5);
    assert_eq!(server.database.number("SELECT count(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn bodies_have_a_size_before_and_after_decompression() {
    let server = Server::at(NOW_MS).await;
    let mib = 1 << 20;
    let padded = |bytes: usize| {
        let report = report("s");
        let blanks = " ".repeat(bytes - report.len());
        report + &blanks
    };
    assert_eq!(server.post(padded(mib)).await.status, 200);
    is_error(&server.post(padded(mib + 1)).await, 413, "PAYLOAD_TOO_LARGE");
    // In chunks, without a length.
    let chunked = |text: String| {
        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            text.as_bytes().chunks(100_000).map(|chunk| Ok(chunk.to_vec())).collect();
        reqwest::Body::wrap(http_body_util::StreamBody::new(futures_util::stream::iter(
            chunks
                .into_iter()
                .map(|chunk| chunk.map(|c| hyper::body::Frame::data(bytes::Bytes::from(c)))),
        )))
    };
    assert_eq!(server.post(chunked(padded(mib))).await.status, 200);
    for bytes in [mib + 1, 3 * mib] {
        is_error(&server.post(chunked(padded(bytes))).await, 413, "PAYLOAD_TOO_LARGE");
    }
    for encoding in ENCODINGS {
        let fits = compress(encoding, padded(mib).as_bytes());
        assert_eq!(server.send(post(&server, "/v1/sessions", encoding, fits)).await.status, 200);
        let large = compress(encoding, padded(mib + 1).as_bytes());
        let answer = server.send(post(&server, "/v1/sessions", encoding, large)).await;
        let message = is_error(&answer, 413, "PAYLOAD_TOO_LARGE");
        assert!(message.contains("decompressed"), "{message}");
    }
    // A batch may have 8 MiB.
    let batch =
        |bytes: usize| format!("[{}]{}", report("s"), " ".repeat(bytes - 2 - report("s").len()));
    assert_eq!(server.post_batch(batch(8 * mib)).await.status, 200);
    is_error(&server.post_batch(batch(8 * mib + 1)).await, 413, "PAYLOAD_TOO_LARGE");
    let series = "sessions_rejected_total{code=\"PAYLOAD_TOO_LARGE\"}";
    assert!((server.metric(series).await - 9.0).abs() < 0.5);
    // All are kept but the last one, which is larger than any that is read; compressed ones as
    // they were sent.
    let kept = "SELECT count(*) FROM rejected_reports WHERE code = 'PAYLOAD_TOO_LARGE'";
    assert_eq!(server.database.number(kept).await, 8);
    let whole = format!("{kept} AND octet_length(body) > {mib}");
    assert_eq!(server.database.number(&whole).await, 3);

    // The largest limit there is: what is refused is refused for good, and kept.
    let with_limit = |bytes: &str| crate::support::ServerOptions {
        env: vec![("MAX_BODY_BYTES", bytes.to_owned())],
        now_ms: Some(NOW_MS),
        ..Default::default()
    };
    let large = Server::with(with_limit("8388608"), &Database::new().await).await;
    is_error(&large.post(vec![b'x'; 8 * mib]).await, 400, "INVALID_SCHEMA");
    assert_eq!(
        large.database.number("SELECT octet_length(body) FROM rejected_reports").await,
        8_388_608
    );

    let small = Server::with(with_limit("2000"), &Database::new().await).await;
    assert_eq!(small.post(padded(2_000)).await.status, 200);
    is_error(&small.post(padded(2_001)).await, 413, "PAYLOAD_TOO_LARGE");
    let wide = report("s").replace(':', &format!(":{}", " ".repeat(1_000)));
    let answer = small.post_batch(format!("[{wide}]")).await;
    let answer = answer.json();
    assert_eq!(results(&answer)[0].2, Some("PAYLOAD_TOO_LARGE"), "{answer}");
}
