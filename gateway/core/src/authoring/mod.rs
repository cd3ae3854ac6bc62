//! What people who write policies ask of them, before they decide anything.
//!
//! [`question`] asks whole sets of policies, as Cedar itself would; [`case`](mod@case) holds them to written answers, [`cover`] says what no
//! case has shown, [`mutate`] what no case would notice, [`matrix`] who may do what, [`lint`] what is hardly meant,
//! [`explain`] why, and what would have to be different, and [`redecide`] what recorded proposals would come to now.

pub mod case;
pub mod cover;
pub mod lint;
pub mod matrix;
pub mod mutate;
pub mod question;
pub mod region;

/// The innermost cause of an error, which says what is wrong.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
