/* espalier.h - everything. */
#ifndef ESPALIER_ESPALIER_H
#define ESPALIER_ESPALIER_H

#include <espalier/arena.h>
#include <espalier/backend.h>
#include <espalier/bitmask.h>
#include <espalier/break_even.h>
#include <espalier/checkpoint.h>
#include <espalier/communicator.h>
#include <espalier/dataset.h>
#include <espalier/deletion.h>
#include <espalier/digest.h>
#include <espalier/evaluate.h>
#include <espalier/events.h>
#include <espalier/fsa.h>
#include <espalier/gpu.h>
#include <espalier/idx.h>
#include <espalier/initializer.h>
#include <espalier/interrupt.h>
#include <espalier/kinds.h>
#include <espalier/model.h>
#include <espalier/nearest.h>
#include <espalier/network.h>
#include <espalier/number.h>
#include <espalier/optimizer.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <espalier/quota.h>
#include <espalier/rank_backend.h>
#include <espalier/recipe.h>
#include <espalier/replica.h>
#include <espalier/report.h>
#include <espalier/rng.h>
#include <espalier/run_dir.h>
#include <espalier/run_record.h>
#include <espalier/safetensors.h>
#include <espalier/schedule.h>
#include <espalier/shape.h>
#include <espalier/sharing.h>
#include <espalier/sparse_model.h>
#include <espalier/status.h>
#include <espalier/survivors.h>
#include <espalier/threads.h>
#include <espalier/trainer.h>
#include <espalier/watchdog.h>

#endif
