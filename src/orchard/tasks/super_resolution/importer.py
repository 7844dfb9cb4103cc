"""Official networks; of an adversarial pair the generator's file, and the discriminator's beside it."""

from orchard.tasks.unconditional_image_generation.importer import complete as complete
