//! [`Script`]: what a call makes the provider do.

/// What a call makes the provider do, as its header `x-script` has it: `output=20, reasoning=5, cut=3`.
///
/// A fault `=N` comes after so many events of a stream; a whole answer breaks in the middle of its body.
#[derive(Debug, Clone)]
pub struct Script {
    /// Output tokens that are wanted; fewer, where the ceiling is lower.
    pub output: u64,
    /// Tokens that are thought, and not said.
    pub reasoning: u64,
    /// Of the input, what is in the cache, and what is put into it.
    pub cached: u64,
    pub cache_write: u64,
    /// Bytes of an image that a response has.
    pub image: usize,
    /// Of that, what stays there for an hour.
    pub cache_write_1h: u64,
    /// The service tier and the model that serve it, if they are others than usual and asked for.
    pub tier: Option<String>,
    pub served_by: Option<String>,
    /// How often the web is searched.
    pub searches: u64,
    /// Milliseconds between events.
    pub pace: u64,
    /// An error in place of an answer, and when to come back.
    pub status: Option<u16>,
    pub retry_after: Option<u64>,
    /// Nothing more comes.
    pub stall: Option<usize>,
    /// The connection breaks.
    pub cut: Option<usize>,
    /// The answer ends as if it were whole.
    pub end: Option<usize>,
    /// The blank line after the last event is left out.
    pub unended: bool,
    /// Data comes in two lines, the lines end in several ways, or what comes is compressed, whoever asked for that.
    pub two_lines: bool,
    pub mixed_ends: bool,
    pub compressed: bool,
    /// An error is the last event.
    pub error: Option<usize>,
    /// Usage is not told.
    pub no_usage: bool,
    /// The answer is no JSON.
    pub garbage: bool,
    /// The ceiling is not kept.
    pub ignores_ceiling: bool,
    /// Faults are for the first call with this name only.
    pub once: Option<String>,
}

impl Script {
    /// What is wanted where nothing is said.
    const PLAIN: Self = Self {
        output: 12,
        reasoning: 0,
        cached: 0,
        cache_write: 0,
        image: 0,
        cache_write_1h: 0,
        tier: None,
        served_by: None,
        searches: 0,
        pace: 0,
        status: None,
        retry_after: None,
        stall: None,
        cut: None,
        end: None,
        unended: false,
        two_lines: false,
        mixed_ends: false,
        compressed: false,
        error: None,
        no_usage: false,
        garbage: false,
        ignores_ceiling: false,
        once: None,
    };

    pub fn parse(text: &str) -> Self {
        let mut script = Self::PLAIN;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, "1"));
            let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{word}"));
            let events = || Some(number() as usize);
            match name {
                "output" => script.output = number(),
                "reasoning" => script.reasoning = number(),
                "cached" => script.cached = number(),
                "cache-write" => script.cache_write = number(),
                "image" => script.image = number() as usize,
                "cache-write-1h" => script.cache_write_1h = number(),
                "tier" => script.tier = Some(value.to_owned()),
                "served-by" => script.served_by = Some(value.to_owned()),
                "searches" => script.searches = number(),
                "pace" => script.pace = number(),
                "status" => script.status = u16::try_from(number()).ok(),
                "retry-after" => script.retry_after = Some(number()),
                "stall" => script.stall = events(),
                "cut" => script.cut = events(),
                "end" => script.end = events(),
                "unended" => script.unended = true,
                "two-lines" => script.two_lines = true,
                "mixed-ends" => script.mixed_ends = true,
                "compressed" => script.compressed = true,
                "error" => script.error = events(),
                "no-usage" => script.no_usage = true,
                "garbage" => script.garbage = true,
                "ignores-ceiling" => script.ignores_ceiling = true,
                "once" => script.once = Some(value.to_owned()),
                _ => panic!("the provider knows no {word:?}"),
            }
        }
        script
    }

    /// The same without its faults.
    pub fn faultless(self) -> Self {
        let Self { output, reasoning, cached, cache_write, image, pace, .. } = self;
        Self { output, reasoning, cached, cache_write, image, pace, ..Self::PLAIN }
    }

    /// The output of one choice under a ceiling, and how much of it is thought.
    pub fn produced(&self, ceiling: Option<u64>) -> (u64, u64) {
        let ceiling = ceiling.filter(|_| !self.ignores_ceiling).unwrap_or(u64::MAX);
        let reasoning = self.reasoning.min(ceiling);
        (self.output.min(ceiling - reasoning) + reasoning, reasoning)
    }
}
