#include "train/calibrate.h"

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "train/optimizer.h"

namespace attune {

namespace {

/// Gradients of one batch's summed loss; returns the count that would divide it.
double gradients_of(const CalibrationParts& parts, Batch batch, int64_t number) {
  if (parts.class_weights.defined()) batch.fields["class_weights"] = parts.class_weights;
  batch.pass.seed = parts.seed;
  clear_gradients(parts.params);
  const Loss loss = parts.objective.compute(parts.model, batch);
  if (!std::isfinite(loss.total.sum.item<double>()))
    fail(ErrorCode::Diverged,
         "calibration: the loss of batch {} is not a finite number before training began; look at "
         "the data and at the model's weights",
         number);
  if (loss.total.sum.requires_grad())
    backward(loss.total.sum, parts.model.numerics().recompute != 0);
  return loss.total.count;
}

void run(const CalibrationParts& parts, int64_t batches,
         const std::function<void(double count)>& each) {
  Loader loader(parts.task, parts.train, Stream64(parts.seed, "calibration").key(), parts.batches);
  for (Param& param : parts.params) param.value.set_requires_grad(true);
  int64_t examples = 0;
  for (int64_t i = 0; i < batches && examples < loader.examples(); ++i) {
    const Loader::Item item = loader.next();
    examples += static_cast<int64_t>(item.examples.size());
    each(gradients_of(parts, item.batch, i + 1));
  }
  clear_gradients(parts.params);
}

}  // namespace

Calibration calibration_of(const CalibrationParts& parts) {
  return {[parts](int64_t batches, const std::function<void(double count)>& each) {
            run(parts, batches, each);
          },
          parts.seed};
}

}  // namespace attune
