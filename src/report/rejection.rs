//! Why a report was refused: a stable code, the field, and a sentence.

use std::fmt;

/// Stable codes of refused reports; they appear in answers, logs and metrics alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not JSON, wrong type, missing or out-of-range field.
    InvalidSchema,
    /// `schemaVersion` of another major than 1.
    UnsupportedSchemaVersion,
    /// A report, or a batch, is larger than it may be.
    PayloadTooLarge,
    /// A body in a format or an encoding that is not read.
    UnsupportedMediaType,
}

impl Code {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSchema => "INVALID_SCHEMA",
            Self::UnsupportedSchemaVersion => "UNSUPPORTED_SCHEMA_VERSION",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
        }
    }
}

/// A refused report. `Display` is the message that the client gets: `$.field: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Stable code.
    pub code: Code,
    /// JSON path of the field, `$` for the whole document, or the name of a header.
    pub field: String,
    /// What is wrong and what is allowed; never the value itself.
    pub detail: String,
}

impl Rejection {
    /// A rejection with code [`Code::InvalidSchema`].
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: Code::InvalidSchema, field: field.into(), detail: detail.into() }
    }

    /// A rejection of the whole document for its size.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self { code: Code::PayloadTooLarge, field: "$".to_owned(), detail: detail.into() }
    }

    /// A rejection of a body for a header that says how it is written.
    pub fn unsupported(header: &str, detail: &str) -> Self {
        let (field, detail) = (header.to_owned(), detail.to_owned());
        Self { code: Code::UnsupportedMediaType, field, detail }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}
