"""All that can be diagnosed, by name."""

from agreement.diagnosis.cnn import CNN_STEP
from agreement.diagnosis.images import IMAGES
from agreement.diagnosis.layers import LAYERS
from agreement.diagnosis.losses import LOSSES
from agreement.diagnosis.optimizers import OPTIMIZER_SUBJECTS
from agreement.diagnosis.stacks import STACKS
from agreement.diagnosis.subject import Subject
from agreement.diagnosis.training import TRAINING

SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (*STACKS, *LAYERS, *IMAGES, *LOSSES, *OPTIMIZER_SUBJECTS, *TRAINING, CNN_STEP)
}
