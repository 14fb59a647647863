//! The demo's language: a word is a token.

/// What it says, over and over.
const TEXT: &str = "The tide comes in and the tide goes out, and a gate that knows how much has passed lets no \
    more through than it was built for. This is a demo, so every word of this answer is one token.";

/// How many words an answer has that may be as long as it likes.
pub(super) const USUAL_LENGTH: usize = 36;

/// The first words of the text, each but the first with the space before it.
pub(super) fn words(count: usize) -> impl Iterator<Item = String> {
    let endless = TEXT.split_whitespace().cycle().take(count).enumerate();
    endless.map(|(index, word)| if index == 0 { word.to_owned() } else { format!(" {word}") })
}

/// How many tokens a text has.
pub(super) fn tokens(text: &str) -> usize {
    text.split_whitespace().count()
}
