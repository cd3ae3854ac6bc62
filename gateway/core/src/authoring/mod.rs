//! What people who write policies ask of them, before they decide anything.
//!
//! [`question`] asks whole sets of policies, as Cedar itself would; [`case`](mod@case) holds them to written answers, [`cover`] says what no
//! case has shown, [`mutate`] what no case would notice, [`matrix`] who may do what, [`lint`] what is hardly meant,
//! [`explain`] why, and what would have to be different, and [`redecide`] what recorded proposals would come to now.

pub mod case;
pub mod cover;
pub mod explain;
pub mod lint;
pub mod matrix;
pub mod mutate;
mod nearest;
pub mod question;
pub mod redecide;
pub mod region;
