//! Bodies of LLM calls that are none, or are meant to hurt.

use super::{Setup, statuses};

/// A POST of a body in one piece.
fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PATHS: [(&str, &str); 5] = [
    ("/v1/chat/completions", "messages"),
    ("/v1/completions", "prompt"),
    ("/v1/responses", "input"),
    ("/v1/messages", "messages"),
    ("/v1beta/models/gemini-2.5-flash:generateContent", "contents"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_is_told_so_and_reaches_nobody() {
    let setup = Setup::new("").await;
    let deep = |open: &str, close: &str| open.repeat(200_000) + &close.repeat(200_000);
    let mut calls = 0;
    for (path, field) in PATHS {
        let content =
            |value: &str| format!("{{\"{field}\":[{value}],\"max_tokens\":9}}").into_bytes();
        let bad: [(&str, Vec<u8>); 14] = [
            ("nothing", Vec::new()),
            (
                "bytes that are no UTF-8",
                content("\"\u{0}\"").into_iter().map(|byte| byte | 0x80).collect(),
            ),
            ("UTF-8 that breaks off", [&content("\"x\"")[..12], b"\xc3"].concat()),
            ("UTF-16", "{\0}\0".into()),
            ("a mark before it", [b"\xef\xbb\xbf", &content("")[..]].concat()),
            ("half a surrogate", content(r#""\ud800""#)),
            ("a control character", content("\"\u{1}\"")),
            ("lists in lists", deep("[", "]").into()),
            ("objects in objects", content(&deep("{\"a\":", "}").replace("}}", "1}}"))),
            ("lists in a member", content(&deep("[", "]"))),
            ("two texts", [content(""), content("")].concat()),
            ("a number beyond all", content("1e999999")),
            ("not a number", content("NaN")),
            ("half of it", content("\"x\"")[..15].to_vec()),
        ];
        for (name, body) in bad {
            let answer = tokio::task::block_in_place(|| setup.exchange(&post(path, &body)));
            calls += 1;
            assert_eq!(statuses(&answer), [400], "{path}, {name}: {answer}");
            let (head, text) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("application/json"), "{path}, {name}: {head}");
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            let message = json["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("The body is not JSON"), "{path}, {name}: {message}");
            assert!(message.len() < 300, "{path}, {name}");
        }
    }
    let (reached, counted, charged) = setup.account(0).await;
    assert_eq!((reached, counted, charged), (0, calls, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_told_so_however_it_is_framed() {
    let setup = Setup::new("llm.max_body_bytes = 100_000").await;
    let text = "x".repeat(200_000);
    for (path, field) in PATHS {
        let body = format!("{{\"{field}\":[\"{text}\"]}}");
        let whole = post(path, body.as_bytes());
        let chunk = format!("{:x}\r\n{body}\r\n", body.len());
        // Without an end: it is not waited for.
        let chunked =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        for request in [whole, chunked.into_bytes()] {
            let answer = tokio::task::block_in_place(|| setup.exchange(&request));
            assert_eq!(statuses(&answer), [413], "{path}: {answer}");
            assert!(answer.contains("send at most 100000 bytes"), "{answer}");
        }
    }
    let (reached, counted, charged) = setup.account(0).await;
    assert_eq!((reached, counted, charged), (0, 10, 0));
}

/// It is read in a time that goes by its length, whatever is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_of_small_parts_is_a_call_like_any_other() {
    let setup = Setup::new("").await;
    let many = |part: &dyn Fn(usize) -> String, count: usize| {
        (0..count).map(part).collect::<Vec<_>>().join(",")
    };
    let bodies = [
        format!(
            "{{\"messages\":[],\"max_tokens\":9,{}}}",
            many(&|n| format!("\"m{n}\":{n}"), 100_000)
        ),
        format!("{{\"messages\":[{}],\"max_tokens\":9}}", many(&|_| "{}".to_owned(), 300_000)),
        format!("{{\"messages\":[\"{}\"],\"max_tokens\":9}}", "\\u0041".repeat(100_000)),
        format!("{{\"messages\":[{}],\"max_tokens\":9}}", "1".repeat(300)),
        format!(
            "{{\"model\":\"gpt-5\",\"messages\":[\"{}\"],\"max_tokens\":9}}",
            "a".repeat(900_000)
        ),
    ];
    for body in &bodies {
        let request = post("/v1/chat/completions", body.as_bytes());
        let answer = tokio::task::block_in_place(|| setup.exchange(&request));
        let start: String = body.chars().take(60).collect();
        assert_eq!(statuses(&answer), [200], "{start}: {answer}");
    }
    assert_eq!(setup.account(0).await.0, bodies.len() as u64);
}

/// However many calls there are, and however slow: what they have sent fits in memory.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_passed_on_yet_have_their_room_and_no_more() {
    let setup = Setup::new("llm.max_body_bytes = 1000\nllm.max_bodies_bytes = 4000").await;
    for (path, field) in PATHS {
        let whole = post(path, &[format!("{{\"{field}\":[\"").as_bytes(), b"\"]}"].concat());
        let text = "x".repeat(800);
        let slow = post(path, format!("{{\"{field}\":[\"{text}\"]}}").as_bytes());
        let (first, last) = slow.split_at(slow.len() - 20);
        let padded = post(path, format!("{{\"{field}\":[\"{}\"]}}", &text[..300]).as_bytes());
        let is_refused = || {
            let mut slow = setup.connect();
            slow.send(first);
            // Until what was sent has come; or, if one of these was there first, not at all.
            let tries = std::iter::repeat_with(|| setup.exchange(&padded)).take(100);
            let refused = tries.skip_while(|answer| statuses(answer) == [200]).take(3);
            let refused: Vec<String> = refused.collect();
            if refused.is_empty() {
                return false;
            }
            for answer in refused {
                assert_eq!(statuses(&answer), [503], "{path}: {answer}");
                assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
                assert!(answer.contains("no room for the body"), "{answer}");
            }
            assert_eq!(statuses(&setup.exchange(&whole)), [200], "{path}: there is room for this");
            slow.send(last);
            let answer = slow.closed();
            assert_eq!(statuses(&answer), [200], "{path}: {answer}");
            // Its room is free again, once it has gone out.
            let mut again = std::iter::repeat_with(|| setup.exchange(&padded)).take(1_000);
            assert!(again.any(|answer| statuses(&answer) == [200]), "{path}");
            true
        };
        let is_refused = tokio::task::block_in_place(|| (0..100).any(|_| is_refused()));
        assert!(is_refused, "{path}");
    }
    // Those that were refused do not count; one that has broken off does.
    let (reached, counted, _) = setup.account(0).await;
    assert!((reached..reached + 100).contains(&counted), "{reached} reached it, {counted} count");
}
