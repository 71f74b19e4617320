//! An image made smaller. Nothing here knows of HTTP.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    error::LimitErrorKind,
};

/// Most pixels of an input: a photograph of 24 megapixels, such as 6000 x 4000.
pub const PIXELS_MAX: u64 = 24_000_000;

/// Most bytes of an input once decoded. An image of 16 bits a channel reaches it before [`PIXELS_MAX`].
const DECODED_BYTES_MAX: u64 = 128 << 20;

/// Longest side of a thumbnail, in pixels.
pub const SIDE_MAX: u32 = 2048;

/// Quality of a JPEG that is written, of 100.
const JPEG_QUALITY: u8 = 85;

/// What is wanted: a picture that fits into a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Width of the box, in pixels.
    pub width: u32,
    /// Height of the box, in pixels.
    pub height: u32,
    /// Format to write; that of the input if `None`.
    pub format: Option<Format>,
}

/// A format that is both read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG. What was transparent becomes white.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, written without loss.
    Webp,
}

/// A thumbnail.
#[derive(Debug)]
pub struct Made {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its format.
    pub format: Format,
}

/// Why no thumbnail was made.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The input is none of the formats.
    #[error(
        "the body is no JPEG, PNG or WebP image; send the file's bytes as they are, such as with curl --data-binary @FILE"
    )]
    NoImage,
    /// The input would take too much memory.
    #[error("the image is too large once decoded; at most {PIXELS_MAX} pixels are read")]
    TooLarge,
    /// The input begins like an image but is broken.
    #[error("the image cannot be read: {0}")]
    Broken(String),
    /// The thumbnail could not be written.
    #[error("the thumbnail cannot be written: {0}")]
    CannotWrite(String),
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    /// The format that a media type or a file's ending names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("image/").unwrap_or(name) {
            "jpeg" | "jpg" => Some(Self::Jpeg),
            "png" => Some(Self::Png),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }

    fn of(format: ImageFormat) -> Option<Self> {
        match format {
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::WebP => Some(Self::Webp),
            _ => None,
        }
    }
}

/// Makes a thumbnail of an image file. It keeps the aspect ratio, turns the picture upright as its EXIF
/// data says, and never enlarges.
///
/// # Errors
/// The file is no image, is broken, or is larger than [`PIXELS_MAX`].
pub fn make(file: &[u8], wanted: &Wanted) -> Result<Made, Fault> {
    let (picture, read_as) = decode(file)?;
    let fits = picture.width() <= wanted.width && picture.height() <= wanted.height;
    let picture = if fits { picture } else { picture.thumbnail(wanted.width, wanted.height) };
    let format = wanted.format.unwrap_or(read_as);
    let bytes = encode(picture, format).map_err(|error| Fault::CannotWrite(error.to_string()))?;
    Ok(Made { bytes, format })
}

fn decode(file: &[u8]) -> Result<(DynamicImage, Format), Fault> {
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|_| Fault::NoImage)?;
    let format = reader.format().and_then(Format::of).ok_or(Fault::NoImage)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| fault(&error))?;
    let (width, height) = decoder.dimensions();
    // The header says the size before a single pixel is decoded: a bomb is refused here.
    if u64::from(width) * u64::from(height) > PIXELS_MAX
        || decoder.total_bytes() > DECODED_BYTES_MAX
    {
        return Err(Fault::TooLarge);
    }
    let orientation = decoder.orientation().map_err(|error| fault(&error))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| fault(&error))?;
    picture.apply_orientation(orientation);
    Ok((picture, format))
}

fn fault(error: &image::ImageError) -> Fault {
    match error {
        image::ImageError::Limits(limit)
            if !matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) =>
        {
            Fault::TooLarge
        }
        other => Fault::Broken(other.to_string()),
    }
}

fn encode(picture: DynamicImage, format: Format) -> image::ImageResult<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    match format {
        Format::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
            on_white(picture).write_with_encoder(encoder)?;
        }
        Format::Png => eight_bits(picture).write_to(&mut file, ImageFormat::Png)?,
        Format::Webp => eight_bits(picture).write_to(&mut file, ImageFormat::WebP)?,
    }
    Ok(file.into_inner())
}

/// Eight bits a channel, which every writer takes and every viewer shows.
fn eight_bits(picture: DynamicImage) -> DynamicImage {
    if picture.color().has_alpha() {
        picture.into_rgba8().into()
    } else {
        picture.into_rgb8().into()
    }
}

/// JPEG has no transparency.
fn on_white(picture: DynamicImage) -> DynamicImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into();
    }
    let picture = picture.into_rgba8();
    let mut flat = image::RgbImage::new(picture.width(), picture.height());
    for (to, from) in flat.pixels_mut().zip(picture.pixels()) {
        let [red, green, blue, alpha] = from.0;
        let blend = |channel: u8| {
            let alpha = u16::from(alpha);
            ((u16::from(channel) * alpha + 255 * (255 - alpha)) / 255) as u8
        };
        to.0 = [blend(red), blend(green), blend(blue)];
    }
    flat.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASTRONAUT: &[u8] = include_bytes!("../astronaut.jpg");

    fn within(width: u32, height: u32, format: Option<Format>) -> Wanted {
        Wanted { width, height, format }
    }

    fn png(picture: &DynamicImage) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn mean(picture: &DynamicImage) -> [f64; 3] {
        let picture = picture.to_rgb8();
        let mut sums = [0.0; 3];
        for pixel in picture.pixels() {
            for (sum, channel) in sums.iter_mut().zip(pixel.0) {
                *sum += f64::from(channel);
            }
        }
        sums.map(|sum| sum / f64::from(picture.width() * picture.height()))
    }

    #[test]
    fn the_thumbnail_shows_the_same_picture() {
        let whole = image::load_from_memory(ASTRONAUT).unwrap();
        for format in [Format::Jpeg, Format::Png, Format::Webp] {
            let made = make(ASTRONAUT, &within(100, 80, Some(format))).unwrap();
            let small = image::load_from_memory(&made.bytes).unwrap();
            assert_eq!((small.width(), small.height()), (80, 80), "{format:?}");
            for (a, b) in mean(&whole).into_iter().zip(mean(&small)) {
                assert!((a - b).abs() < 2.0, "{format:?}: mean colour {a} became {b}");
            }
            // Not only the same colours, but in the same places: the middle of the face is light, the
            // right upper corner with the shuttle's black side is dark.
            let small = small.to_luma8();
            let quarter = whole.thumbnail(80, 80).to_luma8();
            let off = small.pixels().zip(quarter.pixels()).map(|(a, b)| a.0[0].abs_diff(b.0[0]));
            let off: u64 = off.map(u64::from).sum();
            assert!(off < 80 * 80 * 6, "{format:?}: {off}");
        }
    }

    #[test]
    fn the_input_decides_the_format_if_nobody_else_does() {
        let made = make(ASTRONAUT, &within(10, 10, None)).unwrap();
        assert_eq!(made.format, Format::Jpeg);
        let made = make(&png(&DynamicImage::new_rgb8(4, 4)), &within(2, 2, None)).unwrap();
        assert_eq!(image::guess_format(&made.bytes).unwrap(), ImageFormat::Png);
    }

    #[test]
    fn small_pictures_are_not_enlarged() {
        let made = make(&png(&DynamicImage::new_luma16(3, 5)), &within(99, 99, None)).unwrap();
        let small = image::load_from_memory(&made.bytes).unwrap();
        assert_eq!((small.width(), small.height()), (3, 5));
    }

    #[test]
    fn transparent_turns_white_in_a_jpeg() {
        let file = png(&DynamicImage::new_rgba8(4, 4));
        let made = make(&file, &within(4, 4, Some(Format::Jpeg))).unwrap();
        let pixel = image::load_from_memory(&made.bytes).unwrap().to_rgb8().get_pixel(1, 1).0;
        assert!(pixel.iter().all(|channel| *channel > 250), "{pixel:?}");
    }

    #[test]
    fn bombs_and_rubbish_are_refused_before_they_take_memory() {
        // A PNG of 50,000 x 50,000 pixels by its header, which is all there is of it.
        let mut bomb =
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xc3\x50\0\0\xc3\x50\x08\x06\0\0\0".to_vec();
        bomb.extend(crc_of_bomb().to_be_bytes());
        bomb.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        let fault = |file: &[u8]| make(file, &within(10, 10, None)).unwrap_err().to_string();
        assert!(fault(&bomb).contains("at most 24000000 pixels"), "{}", fault(&bomb));
        assert!(fault(b"").contains("no JPEG, PNG or WebP"));
        assert!(fault(b"GIF89a\x01\0\x01\0").contains("no JPEG, PNG or WebP"));
        assert!(
            fault(&ASTRONAUT[..300]).contains("cannot be read"),
            "{}",
            fault(&ASTRONAUT[..300])
        );
    }

    /// CRC-32 of the bomb's header chunk, worked out bit by bit.
    fn crc_of_bomb() -> u32 {
        let chunk = b"IHDR\0\0\xc3\x50\0\0\xc3\x50\x08\x06\0\0\0";
        !chunk.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            })
        })
    }
}
