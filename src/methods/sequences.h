#pragma once
#include <string>
#include <vector>

#include "core/tuner.h"

namespace attune {

/// int64 [rows]: which sequence each row belongs to.
Tensor sequence_of_rows(const RowIndex& rows);
/// Mean over the rows of each sequence: x [rows, d], result [sequences, d].
Tensor sequence_mean(const Tensor& x, const RowIndex& rows);

/// A gate as UniPELT has it: mean over a sequence's rows of sigmoid(w x + b). x [rows, d] in any
/// type, weight [1, d], bias [1] in the master type; result [sequences, 1] in the master type.
/// Reference: Mao et al. 2022, "UniPELT", arXiv 2110.07577, section 3.2.
Tensor sequence_gate(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const RowIndex& rows);

/// The sites that the globs select which have the given kind, each once. "auto" alone selects where
/// prompts go: the token rows of the first stack, before positions join them, or else its embedding
/// output. Errors: BadInput when nothing is left; the message names the method and the kind.
std::vector<Site> flow_sites(Attachment& attachment, const std::vector<std::string>& globs,
                             SiteKind kind, const char* method);

/// First values of prompt rows [length, width]: "random" is U(-0.5, 0.5), or in front of image
/// patches U(-v, v) with v = sqrt(6 / (values of a patch + width)) (Jia et al. 2022, "Visual Prompt
/// Tuning", arXiv 2203.12119), "vocab" rows of random tokens, "text" the rows of a text's tokens,
/// repeated or cut to the length; "auto" is vocab where the stack has tokens, else random.
Tensor first_prompt(Attachment& attachment, const Site& site, int64_t length,
                    const std::string& init, const std::string& text);

}  // namespace attune
