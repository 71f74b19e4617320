//! Which type a body has, by its first bytes (WHATWG MIME Sniffing, as Go's servers apply it) or by a
//! file's name.

/// Bytes that are looked at.
const LOOKED_AT_BYTES: usize = 512;

/// Marks at the very beginning of a body.
const MARKS: &[(&[u8], &str)] = &[
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xFE\xFF", "text/plain; charset=utf-16be"),
    (b"\xFF\xFE", "text/plain; charset=utf-16le"),
    (b"\xEF\xBB\xBF", "text/plain; charset=utf-8"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1A\n", "image/png"),
    (b"\xFF\xD8\xFF", "image/jpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"ID3", "audio/mpeg"),
    (b"\x1A\x45\xDF\xA3", "video/webm"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1F\x8B\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1A\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1A\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
];

/// Marks within a RIFF file, at its ninth byte.
const RIFF_MARKS: &[(&[u8], &str)] =
    &[(b"WEBPVP", "image/webp"), (b"AVI ", "video/avi"), (b"WAVE", "audio/wave")];

/// Tags that make a text HTML, behind white space, in any case.
const TAGS: &[&[u8]] = &[
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

/// The type of a body that begins so.
pub fn content_type(body: &[u8]) -> &'static str {
    let body = &body[..body.len().min(LOOKED_AT_BYTES)];
    let text = body.trim_ascii_start();
    if TAGS.iter().any(|tag| is_tag(text, tag)) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    let marked = MARKS.iter().find(|(mark, _)| body.starts_with(mark)).map(|(_, name)| *name);
    marked.or_else(|| riff(body)).or_else(|| mp4(body)).unwrap_or_else(|| text_or_bytes(text))
}

/// A tag must end, or `<BLUE` would be one.
fn is_tag(text: &[u8], tag: &[u8]) -> bool {
    let Some((begin, rest)) = text.split_at_checked(tag.len()) else { return false };
    begin.eq_ignore_ascii_case(tag) && (tag == b"<!--" || matches!(rest.first(), Some(b' ' | b'>')))
}

fn riff(body: &[u8]) -> Option<&'static str> {
    let rest = body.strip_prefix(b"RIFF")?.get(4..)?;
    RIFF_MARKS.iter().find(|(mark, _)| rest.starts_with(mark)).map(|(_, name)| *name)
}

fn mp4(body: &[u8]) -> Option<&'static str> {
    (body.get(4..8)? == b"ftyp" && body.get(8..)?.starts_with(b"mp4")).then_some("video/mp4")
}

fn text_or_bytes(text: &[u8]) -> &'static str {
    let binary = |byte: &u8| matches!(byte, 0x00..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F);
    match text.iter().any(binary) {
        true => "application/octet-stream",
        false => "text/plain; charset=utf-8",
    }
}

/// The type that a file's name tells.
pub fn by_name(name: &str) -> Option<&'static str> {
    let (_, suffix) = name.rsplit_once('.')?;
    let suffix = suffix.to_ascii_lowercase();
    Some(match suffix.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        for (body, name) in [
            (&b"plain words"[..], "text/plain; charset=utf-8"),
            (b"", "text/plain; charset=utf-8"),
            (b" \n<html><body>x", "text/html; charset=utf-8"),
            (b"<!doctype html>", "text/html; charset=utf-8"),
            (b"<blue>", "text/plain; charset=utf-8"),
            (b"<?xml version=\"1.0\"?>", "text/xml; charset=utf-8"),
            (b"{\"a\": 1}", "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1A\n0000", "image/png"),
            (b"\x00\x01\x02\xff", "application/octet-stream"),
            ("café".as_bytes(), "text/plain; charset=utf-8"),
            (b"\x1f\x8b\x08abc", "application/x-gzip"),
            (b"RIFF1234WEBPVP8 ", "image/webp"),
            (b"\0\0\0\x18ftypmp42", "video/mp4"),
        ] {
            assert_eq!(content_type(body), name, "{body:?}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(by_name("a/b.HTML"), Some("text/html; charset=utf-8"));
        assert_eq!(by_name("app.js"), Some("text/javascript; charset=utf-8"));
        assert_eq!(by_name("noext"), None);
        assert_eq!(by_name("x.unknown"), None);
    }
}
