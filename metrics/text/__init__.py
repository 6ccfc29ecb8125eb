"""Metrics of captions and answers, exact under any sharding.

The shortest way, from texts to scores::

    states = scoring.measure("standard", ids, predictions, references)      # {"cider": CiderState, ...}
    states["bleu"].compute()                                                # {"bleu_1": ..., ..., "bleu_4": ...}

* `registry`: metrics by name, protocols (`paper`: raw strings, `standard`: PTB tokens), published column names.
* `items.check`: what may be scored. None, NaN, no reference, broken Unicode: a `MetricError` that names the item.
* `tokenize`: `raw` leaves texts as they are; `ptb` lower-cases and drops punctuation.
* Each metric is one pure function on tokenized texts (`bleu.bleu`, `cider.cider`, ...) and one state:
  `State.empty()`, `.update(ids, predictions, references)`, `.merge(other)`, `.compute() -> {score: value}`,
  `.per_item() -> (ids, {score: values})`. References are one text or a sequence of texts for each item.
* States hold an Arrow table with one row an item, keyed by id (`to_table`, `from_table`; they pickle): shards in any
  order, merged in any way, give the same bits, and an item that came twice counts once. The same id with other texts
  is an error.
* For a bootstrap, `ids, statistics = state.statistics()` and `state.score(weights @ statistics, weights.sum(axis=1))`
  return each score of each resample. CIDEr keeps the document frequencies of the whole corpus there.
* An empty answer scores 0 in every metric. Scores are fractions (CIDEr-D 0 to 10); tables print them times 100.
"""
