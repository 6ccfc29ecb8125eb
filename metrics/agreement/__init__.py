"""How far annotators agree: coefficients with intervals over clips, boxes, texts, and which labels are confused."""
